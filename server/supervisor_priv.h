/* SPDX-License-Identifier: MIT */
/* What the files of the master share: supervisor.c its life, from the start to the end; workers.c
 * the processes, and recycle.c when one of them is replaced; generations.c what they are processes
 * of, and reload.c how one takes the place of another; upgrade.c how another master takes the place of
 * this one, and predecessor.c how this one has; snapshot.c what others see of it all; commands.c what
 * clients of the control socket may ask for, and switches.c what a page may; reopen.c the logs. */
#ifndef SERVER_SUPERVISOR_PRIV_H
#define SERVER_SUPERVISOR_PRIV_H

#include <uv.h>

#include "concurrency/arena.h"
#include "concurrency/doorbell.h"
#include "handlers/status.h"
#include "server/control.h"
#include "server/directory.h"
#include "server/inherit.h"
#include "server/listener.h"
#include "server/supervisor.h"
#include "server/switches.h"
#include "server/wear.h"

struct generation;
struct master;

/* A process of ours: a worker in its slot, or an orphan that a dead acceptor left behind. */
struct supervised {
    struct generation *generation;
    unsigned slot;
    pid_t pid; /* 0: not running */
    int pidfd;
    uv_poll_t *watch; /* of pidfd; each process has its own, which libuv gives back after its end */
    uv_timer_t respawn;
    int64_t started_ms; /* monotonic */
    int64_t backoff_ms;
    unsigned nth; /* of all that the master has started, for its limits */
    bool cut;     /* killed by us */
    bool orphan;
    struct supervised *next; /* orphan */
};

enum generation_state {
    GENERATION_STARTING,
    GENERATION_SERVING,
    GENERATION_RETIRING, /* another generation serves the same sockets */
    GENERATION_STOPPING, /* nobody will: the listener is no more, or the server stops */
};

/* The replacement of a worn worker: see recycle.c. */
struct recycling {
    struct supervised *old;   /* that is to go; NULL: nothing is under way */
    struct supervised *fresh; /* not ready yet; NULL: it has taken the place */
    enum wear_reason reason;
    int64_t until_ms; /* monotonic: when fresh is to be ready, or old to be gone */
    int64_t again_ms, backoff_ms;
    int64_t memory_ms; /* when to look at it again */
};

/* A listener as one configuration has it, and the processes that serve it: see generations.c. */
struct generation {
    struct master *master;
    struct listener listener;
    struct config *config;      /* that it came with; stays as long as it does */
    void *tickets;              /* of TLS sessions; all generations of a listener have the same */
    struct listing *listing;    /* how others see it */
    struct supervised *workers; /* one for each slot of the board, once started */
    struct recycling recycling;
    enum generation_state state;
    struct generation *before; /* starting: whose place it is to take; NULL: a new listener's */
    size_t place;              /* of its listener in the newest configuration */
    unsigned running;          /* processes, orphans too */
    bool killing, gone;
    struct control_waiters drains; /* who has asked for its end */
    uv_timer_t limit;              /* of its retirement */
    unsigned open_handles;         /* of libuv, when it goes */
    struct generation *next;
};

struct reload;
struct reload_request;
struct upgrade;
struct predecessor;

struct master {
    struct config *config;
    struct generation *generations;  /* all that have processes, or are to get some */
    struct generation *going;        /* have none any more, and are freed when libuv lets go */
    struct reload *reload;           /* under way; NULL: none */
    struct inheritance *inheritance; /* while the first generations are built, or NULL */
    struct predecessor *predecessor; /* the master before this one, as long as it lives, or NULL */
    struct upgrade *upgrade;         /* to another master: under way, or done; NULL: none */
    struct stray *strays;            /* processes of another master that has died */
    uint32_t *lent;                  /* inodes of sockets that are systemd's, and outlive us */
    size_t lent_count;
    struct directory *directory;
    struct modus_arena *arena;
    struct modus_doorbell *bell; /* in the arena; workers' ready events ring it */
    struct supervised *orphans;
    uv_loop_t loop;
    uv_poll_t signal_watch, bell_watch;
    uv_timer_t drain_timer, port_timer, reload_timer, logs_timer, watchdog_timer, recycle_timer;
    unsigned starts; /* of workers so far */
    int signal_fd;
    int life_line[2]; /* the write end is ours alone */
    int pid;
    int64_t started_unix_ms, started_ms;
    unsigned running; /* processes, orphans too */
    bool ready, stopping, killing;
    bool leaving;                           /* another master serves: ends with its last process */
    struct reload_request *reload_requests; /* for another, once the one under way is over */
    int64_t stop_ms;                        /* monotonic: when it was told to stop */
    int pid_fd;                             /* holds the pid file; -1 none */
    bool pid_borrowed;                      /* it is another master's */
    int exit_status;
    unsigned uid, gid;
    bool drop_user;
    struct status_source status;
    struct switches switches; /* of models, asked for on pages */
    struct control *control;  /* NULL: there is none */
    struct control_waiters stops, reopens;
    int64_t reopen_ms;          /* reopens wait: monotonic, until when */
    unsigned reopen_failures;   /* and how many there had been before */
    unsigned gone_log_failures; /* of these, those of generations that are gone */
    bool successor_reopens;     /* the master after this one waits for it, too */
};

/* supervisor.c */
/* Stop gracefully; when that is under way, at once. */
void supervisor_stop(struct master *m);
/* All workers are ready, and nobody else serves: we do. */
void supervisor_serve(struct master *m);
/* Another master serves: finish what there is, and end. */
void supervisor_leave(struct master *m);
/* We have not begun to serve, and will not: end. */
void supervisor_give_up(struct master *m);
/* A line for the service manager: what we are doing. */
void supervisor_notify_serving(const struct master *m, const char *what);

/* upgrade.c */
/* Begin one. request, which may be NULL, is taken: it is answered when the new master serves, or
 * with the reason why it does not. */
void upgrade_begin(struct master *m, struct control_request *request);
/* Is one under way, of which the outcome is open? Then listeners stay as they are. */
bool upgrade_is_pending(const struct master *m);
/* Must the end wait for what it has started? */
bool upgrade_holds(const struct master *m);
/* Is that process the other master, or one that it has left behind? */
bool upgrade_knows(const struct master *m, pid_t pid);
/* The server stops, gracefully or at once: what does not serve yet will not. */
void upgrade_stop(struct master *m, bool at_once);
/* Another master serves: give it a signal that was meant for the server. */
bool upgrade_pass_on(const struct master *m, int signal);
/* Nobody here writes to the old logs any more. */
void upgrade_say_reopened(const struct master *m);
/* In a forked child: close the descriptors, which are the master's. */
void upgrade_forget(const struct master *m);
/* The loop is closed: answer who waits, and free all. */
void upgrade_fini(struct master *m);

/* predecessor.c */
/* Take the link to the master before this one. Returns 0, or -1 with why. */
int predecessor_open(struct master *m, int link, char *why, size_t why_size);
/* Listen to it. Returns 0 or -1. */
int predecessor_start(struct master *m);
/* All workers are ready: ask to serve, or serve if it is gone. */
void predecessor_ready(struct master *m);
/* Does it still serve? */
bool predecessor_serves(const struct master *m);
/* We can't take its place: tell it. Returns false if there is none that could hear it. */
bool predecessor_refuse(struct master *m, const char *why);
/* Tell it, if it lives, to stop, to open its logs again, or that we serve no more: "stop", "logs",
 * "upgraded". */
void predecessor_tell(struct master *m, const char *what);
/* Does it still have to say that its logs are open again? */
bool predecessor_owes_logs(const struct master *m);
/* In a forked child: close the link, which is the master's. */
void predecessor_forget(const struct master *m);
/* The loop is closed: free it. */
void predecessor_fini(struct master *m);

/* strays.c */
/* Another master has died, and its processes are ours now, as a subreaper: hear of their ends. */
void strays_look(struct master *m);
bool strays_have(const struct master *m, pid_t pid);
void strays_free(struct master *m);

/* commands.c: for control_start(); its arg is the master. */
extern const struct control_command commands[];
bool is_for_another(void *master, const char *file, char *why, size_t why_size);

/* reopen.c */
/* Open all logs again, here and in all workers. request, which may be NULL, is taken: it is answered
 * when nobody writes to the old files any more. */
void reopen_logs(struct master *m, struct control_request *request);
/* The same for the master after this one, which is told. */
void reopen_for_successor(struct master *m);

/* workers.c */
/* Start those of a generation. Returns 0 or -1. */
int workers_start(struct generation *g);
/* One of them. Returns 0 or -1 (said in the log). */
int worker_start(struct supervised *s);
/* Kill it, and what a dead acceptor has left in its place. */
void worker_cut(struct supervised *s);
void workers_kill(struct generation *g);
/* Have them look at their board. */
void workers_ring(struct generation *g);
bool workers_ready(const struct generation *g);
/* Is it one of ours, or of those that a dead acceptor of ours left behind? */
bool workers_know(const struct master *m, pid_t pid);
/* May any of them still accept? One that is held by a handler does not meanwhile. */
bool workers_accept(const struct generation *g);

/* recycle.c */
/* Something that it waits for may have come about, or there are new workers. */
void recycle_look(struct master *m);
/* A worker has ended. Returns whether it was being replaced: nothing more is to be done about it. */
bool recycle_ended(struct supervised *s);

/* generations.c */
/* Build one, with its sockets and its board, after before, which goes on meanwhile; NULL: the first
 * of its listener. Returns NULL with why. */
struct generation *generation_new(struct master *m, struct config *config,
                                  struct config_listener *conf, struct generation *before,
                                  char *why, size_t why_size);
/* The one that serves the listener of that name: its address, as in the file or as it is bound.
 * Returns NULL with why: there is none, or there are several. */
struct generation *generation_named(const struct master *m, const char *name, char *why,
                                    size_t why_size);
/* Is that listening socket systemd's? */
bool generation_is_lent(const struct master *m, int fd);
/* Say where it serves, and with which model. */
void generation_announce(const struct generation *g);
/* It serves now; others see it as such. */
void generation_serve(struct generation *g);
/* One of its sockets is others' now, who accept there. */
void generation_leave(struct generation *g, size_t socket);
/* Does it still have addresses that nobody else has, until what waits there is accepted? */
bool generation_holds_addresses(const struct generation *g);
/* The next one serves, here or in another master: let its connections go, there if taken_in. */
void generation_retire(struct generation *g, bool taken_in);
/* The master that was to take in the connections of all has died: they stay. */
void generations_stay(struct master *m);
/* Take in nothing new, finish what is there. */
void generation_stop(struct generation *g);
/* It has not begun to serve, and will not: kill what it has started. */
void generation_abandon(struct generation *g);
/* A process of it has ended: if that was the last of one that does not serve, it goes. */
void generation_look(struct generation *g);
/* Free a configuration that is not the master's, unless something of it goes on. */
void generations_free_config(struct master *m, struct config *config);
/* Free all of one that has no process and is in no list: at the end of the master. */
void generation_free(struct generation *g);

/* supervisor.c */
/* A process of a generation that is starting has ended, as a line says. */
void supervisor_cannot_start(struct generation *g, const char *how);
/* A process has ended: perhaps that was what our own end waited for. */
void supervisor_after_end(struct master *m);

/* reload.c */
/* Take the file anew; done is told the outcome: NULL, or why it was not taken. */
void reload_begin(struct master *m, void (*done)(void *arg, const char *why), void *arg);
/* Have a listener served by another model until the next reload. */
void reload_switch(struct master *m, const char *listener, const char *model,
                   void (*done)(void *arg, const char *why), void *arg);
/* Something that it waits for may have come about. */
void reload_look(struct master *m);
void reload_fail(struct master *m, const char *why);
/* The server stops: nothing is taken any more. */
void reload_stop(struct master *m);
/* Another master serves: who waits for a reload is to ask that one. */
void reload_pass_on(struct master *m);
/* What done is told then, as why. */
extern const char reload_elsewhere[];
/* Does one that is under way have that configuration? */
bool reload_has(const struct master *m, const struct config *config);

/* snapshot.c: fills m->status. */
void snapshot_init(struct master *m);

#endif
