/* SPDX-License-Identifier: MIT */
/* Defaults of the numbers that govern jobs. Stateless. */
#include "jobs/limits.h"

void au_limits_init(au_limits *limits)
{
    *limits = (au_limits){
        .lease_ms = 15000,
        .heartbeat_ms = 5000,
        .stall_ms = 60000,
        .shutdown_grace_ms = 30000,
        .cancel_poll_ms = 20,
        .janitor_ms = 2000,
        .restart_ms = 1000,
        .backoff_ms = 1000,
        .queue_limit = 1000,
        .priority_step_ms = 60000,
        .max_attempts = 3,
        .max_deaths = 2,
        .max_interruptions = 10,
        .max_samples = 16,
        .max_variants = 16,
        .retention_ms = -1,
        .deleted_retention_ms = 86400000,
        .min_free_disk = (uint64_t)1 << 30,
    };
}
