/* SPDX-License-Identifier: MIT */
/* What the service manager is told, if it has asked: sd_notify(3)'s datagrams to the socket that
 * NOTIFY_SOCKET names. Without that variable nothing is said.
 *
 *     notify_init();                          // the variables are taken out of the environment
 *     notify("READY=1\nSTATUS=serving");
 *
 * Of an upgrade the manager hears from the process that it knows as the main one, which says who
 * that is from now on, and is silent afterwards; then the new one speaks.
 *
 * A manager whose queue is full is waited for, a second at most; then what was said is lost. Safe from:
 * the master.
 */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Learn who is to be told. First in the master. */
void notify_init(void);
/* In a child that will be another master: put the variables back, for process pid. */
void notify_pass_on(pid_t pid);
/* Lines NAME=VALUE, without the last line's end. */
__attribute__((format(printf, 1, 2))) void notify(const char *format, ...);
/* WATCHDOG=1, without any waiting: there is another one soon. */
void notify_alive(void);
/* Say no more, or speak again: another process is the main one. */
void notify_hush(bool silent);
/* How often the manager wants to hear that we live, in microseconds; 0: it does not. */
uint64_t notify_watchdog_us(void);
/* Monotonic, as RELOADING=1 is to tell it. */
uint64_t notify_clock_us(void);

#endif
