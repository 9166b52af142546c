# SPDX-License-Identifier: MIT
"""What `make install` puts in place: the program finds its model, and the library serves another program."""
import json
import os
import subprocess
from pathlib import Path

import pytest

from harness import BIN, SLOW, clean_env

BUILD = BIN.parent

PROGRAM = r"""
#include <aulos/aulos.h>
#include <stdio.h>

static au_status save(void *user, size_t row, const au_audio *audio, au_err *err)
{
    (void)user, (void)row, (void)err;
    printf("%llu frames at %d Hz\n", (unsigned long long)audio->n_frames, audio->sample_rate);
    return AU_OK;
}

int main(int argc, char **argv)
{
    au_err err;
    au_model *model = NULL;
    if (argc != 2 || au_model_open(argv[1], NULL, &model, &err) != AU_OK) {
        fprintf(stderr, "%s\n", argc == 2 ? err.message : "usage");
        return 1;
    }
    au_params params;
    au_params_init(&params, sizeof params);
    params.duration_s = 0.1;
    au_row row = {.size = sizeof row, .prompt = "a piano", .seed = 7, .strength = 1, .params = &params};
    au_request request = {.size = sizeof request, .model = model, .rows = &row, .n_rows = 1, .on_audio = save};
    au_status st = au_generate(&request, &err);
    if (st != AU_OK)
        fprintf(stderr, "%s\n", err.message);
    au_model_unref(&model);
    return st != AU_OK;
}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A staged installation: the folder that holds usr/local or whatever the prefix is."""
    stage = tmp_path_factory.mktemp("stage")
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", stage], check=True, capture_output=True,
                   timeout=120)
    (program,) = stage.glob("**/bin/aulos")
    return program.parent.parent


def test_the_installed_program_finds_the_model_that_ships(root, tmp_path):
    done = subprocess.run([root / "bin/aulos", "generate", "a piano", "--duration", "0.1", "--seed", "1", "--json", "-o", "a.wav"],
                          cwd=tmp_path, env=clean_env(), capture_output=True, timeout=60 * SLOW, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "aulos-small"
    done = subprocess.run([root / "bin/aulos", "generate", "a piano", "--duration", "0.1", "--adapter", "chiptune", "-o", "b.wav"],
                          cwd=tmp_path, env=clean_env(), capture_output=True, timeout=60 * SLOW, check=False)
    assert done.returncode == 0, done.stderr


def test_another_program_builds_with_the_library(root, tmp_path):
    (pc,) = root.glob("lib*/**/pkgconfig/aulos.pc")
    prefix = next(line.split("=", 1)[1] for line in pc.read_text().splitlines() if line.startswith("prefix="))
    stage = str(root)[:-len(prefix)]
    env = clean_env({"PKG_CONFIG_PATH": str(pc.parent), "PKG_CONFIG_SYSROOT_DIR": stage})
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "aulos"], env=env, capture_output=True, check=True, text=True).stdout
    options = json.loads(subprocess.check_output(["meson", "introspect", "--buildoptions", str(BUILD)]))
    sanitize = next(o["value"] for o in options if o["name"] == "b_sanitize")
    cc = json.loads((BUILD / "compile_commands.json").read_text())[0]["command"].split()[0]
    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run([cc, "program.c", *flags.split(), *([] if sanitize == "none" else [f"-fsanitize={sanitize}"]), "-o", "program"],
                   cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "program", root / "share/aulos/models/aulos-small"], capture_output=True, text=True, check=False,
                          env=clean_env({"LD_LIBRARY_PATH": str(pc.parent.parent)}), timeout=60 * SLOW)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2400 frames at 24000 Hz\n", "")


def test_the_library_depends_on_no_server_parts(root):
    (library,) = root.glob("lib*/**/libaulos.so.*.*.*")
    assert Path(os.path.realpath(library.parent / "libaulos.so.0")).name == library.name
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "Library soname: [libaulos.so.0]" in needed
    for other in ("sqlite", "microhttpd", "sndfile", "ebur128"):
        assert other not in needed
