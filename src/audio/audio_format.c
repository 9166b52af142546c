/* SPDX-License-Identifier: MIT */
/* The table of formats: names as options and the API spell them. Stateless. */
#include <string.h>
#include <strings.h>

#include "audio/audio.h"

static const struct {
    const char *name, *extension, *mime;
} formats[AU_FORMAT_COUNT] = {
    [AU_FORMAT_WAV] = {"wav", "wav", "audio/wav"},
    [AU_FORMAT_WAV24] = {"wav24", "wav", "audio/wav"},
    [AU_FORMAT_WAVF] = {"wavf", "wav", "audio/wav"},
    [AU_FORMAT_FLAC] = {"flac", "flac", "audio/flac"},
    [AU_FORMAT_MP3] = {"mp3", "mp3", "audio/mpeg"},
    [AU_FORMAT_OPUS] = {"opus", "opus", "audio/ogg"},
};

const char *au_format_name(au_format f)
{
    return formats[f].name;
}

const char *au_format_extension(au_format f)
{
    return formats[f].extension;
}

const char *au_format_mime(au_format f)
{
    return formats[f].mime;
}

bool au_format_parse(const char *name, au_format *out)
{
    for (int f = 0; f < AU_FORMAT_COUNT; f++)
        if (!strcmp(name, formats[f].name)) {
            *out = (au_format)f;
            return true;
        }
    return false;
}

bool au_format_of_extension(const char *extension, au_format *out)
{
    for (int f = 0; f < AU_FORMAT_COUNT; f++) /* the first of equal extensions: 16 bit */
        if (!strcasecmp(extension, formats[f].extension)) {
            *out = (au_format)f;
            return true;
        }
    return false;
}

bool au_format_of_path(const char *path, au_format *out)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path,
               *dot = strrchr(base, '.');
    return dot && dot != base && au_format_of_extension(dot + 1, out);
}
