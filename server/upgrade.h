/* SPDX-License-Identifier: MIT */
/* An upgrade: the master starts the program that is now where its own was, gives it all that is open
 * and must stay so, and retires when the new one is ready. They speak over a socket pair, in the
 * messages of server/parcel.h, whose fields are:
 *
 *     old                                  new
 *     version=N pid_file= control=   ->    reads the configuration anew, takes the sockets that it
 *       listener= socket= tickets=         names, binds the others, starts its workers
 *       intake= lent= ...            <-    ready= listener=N socket=N ... pid_file= control=
 *                                            what it has taken, counted from 0; or refused=why, and it
 *                                            goes
 *     go=                            ->    begins to serve: its pid is in the file, it answers commands
 *     retires its generations        <-    serves=
 *     main=                          ->    the service manager knows whom to hear
 *                                    <-    stop=    be quick
 *                                    <-    upgraded=  another one has taken its place in turn
 *                                    <-    logs=    open the logs again
 *     logs=                         ->    nobody here writes to the old files any more
 *     ends, and with it the link
 *
 * Until `serves` the old one serves and nothing of it has changed; whatever the new one does, or if it
 * ends, the old one says why and goes on. If the old one is killed meanwhile, the new one serves as
 * soon as it can. What an earlier build wrote later ones must understand: a field's meaning never
 * changes, new fields may be passed over; else UPGRADE_VERSION grows, and versions refuse each other.
 */
#ifndef SERVER_UPGRADE_H
#define SERVER_UPGRADE_H

#define UPGRADE_VARIABLE "MODUS_UPGRADE"

enum { UPGRADE_VERSION = 1 };

#endif
