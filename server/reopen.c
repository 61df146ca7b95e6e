/* SPDX-License-Identifier: MIT */
/* Opening the logs again, and knowing when all have: a worker says on its board which round it has
 * seen, and one that is held by a handler says so later. Who waits for that (and then compresses or
 * removes the old files) is few and seldom, so the master looks now and then instead of being told,
 * which also counts out workers that die meanwhile. */
#include <stdio.h>

#include "server/log.h"
#include "server/supervisor_priv.h"

enum { LOOK_MS = 10, LEAST_PATIENCE_MS = 1000 };

static int64_t now_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000);
}

static unsigned count_failures(const struct master *m)
{
    unsigned failures = m->gone_log_failures;
    for (const struct generation *g = m->generations; g; g = g->next)
        failures += atomic_load(&g->listener.board->log_failures);
    return failures;
}

static unsigned count_behind(const struct master *m)
{
    unsigned behind = 0;
    for (const struct generation *g = m->generations; g; g = g->next)
        behind += board_logs_behind(g->listener.board);
    return behind + predecessor_owes_logs(m);
}

static void look(struct master *m)
{
    unsigned behind = count_behind(m);
    char why[128];
    if (behind && now_ms() < m->reopen_ms)
        return;
    uv_timer_stop(&m->logs_timer);
    if (m->successor_reopens)
        upgrade_say_reopened(m);
    m->successor_reopens = false;
    if (behind) {
        snprintf(why, sizeof why,
                 "%u %s may still write to the old files: busy for longer than drain_timeout",
                 behind, behind == 1 ? "process" : "processes");
        control_answer_all(&m->reopens, why);
    } else if (count_failures(m) > m->reopen_failures) {
        control_answer_all(
            &m->reopens,
            "a log could not be opened and its old file goes on; the error log says why");
    } else {
        control_answer_all(&m->reopens, NULL);
    }
}

static void on_look(uv_timer_t *timer)
{
    look(timer->data);
}

static void wait_for_all(struct master *m)
{
    int64_t patience_ms = m->config->drain_timeout_ms;
    if (patience_ms < LEAST_PATIENCE_MS)
        patience_ms = LEAST_PATIENCE_MS;
    m->reopen_ms = now_ms() + patience_ms;
    uv_timer_start(&m->logs_timer, on_look, LOOK_MS, LOOK_MS);
}

static void note_failure(const struct listener *l, int result)
{
    if (result != 0)
        atomic_fetch_add(&l->board->log_failures, 1);
}

void reopen_logs(struct master *m, struct control_request *request)
{
    if (!m->reopens.first)
        m->reopen_failures = count_failures(m);
    if (request)
        control_keep(&m->reopens, request);
    int result = log_reopen(); /* there is a listener, and the first one's count will do */
    if (m->drop_user)
        log_give(m->config->error_log, m->uid, m->gid); /* before workers open it */
    for (struct generation *g = m->generations; g; g = g->next) {
        struct listener *l = &g->listener;
        note_failure(l, result | access_log_reopen(l->access_log));
        result = 0;
        if (m->drop_user)
            log_give(l->conf->access_log, m->uid, m->gid);
        atomic_fetch_add(&l->board->log_round, 1);
        workers_ring(g);
    }
    predecessor_tell(m, "logs");
    if (m->reopens.first || m->successor_reopens)
        wait_for_all(m);
}

void reopen_for_successor(struct master *m)
{
    m->successor_reopens = true;
    reopen_logs(m, NULL);
}
