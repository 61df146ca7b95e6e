/* SPDX-License-Identifier: MIT */
/*
 * The condition of process scope (concurrency/cond.c): two waiters for a token each, a notifier
 * that gives one token after the other, and one of them (VICTIM) who may be killed at any step and
 * is then buried: its lock passes on, and the death epoch moves and wakes all who watch it.
 *
 * Checked: nobody sleeps for ever beside a token. If a waiter is the victim, there is only one token
 * before the burial, which the other one may have to find without a notification.
 *
 * run: -DVICTIM=0
 * run: -DVICTIM=1
 * run: -DVICTIM=3
 * broken: -DVICTIM=0 -DLOOK_LATE
 * broken: -DVICTIM=0 -DALWAYS_CLEAR
 * broken: -DVICTIM=1 -DNO_EPOCH
 */
#define MARK         1
#define NOTIFICATION 2
#define NOTIFIER     3
#define GIVEN        ((VICTIM == 1) -> 1 : 2)

byte owner, word, epoch, tokens, taken;
bool asleep[3], gone[4];

#define MAY_DIE                                                                                    \
    if                                                                                             \
    :: me == VICTIM -> goto dies                                                                   \
    :: true                                                                                        \
    fi

inline acquire()
{
    atomic { owner == 0 -> owner = me }
}

inline release()
{
    owner = 0
}

inline park()
{
    atomic {
        if
        :: word == seen && epoch == watch -> asleep[me] = true
        :: else
        fi
    };
    !asleep[me]
}

proctype waiter(byte me)
{
    byte seen, watch;

    acquire();
    do
    :: tokens > 0 -> MAY_DIE; break
    :: else ->
       MAY_DIE;
       watch = epoch;
#ifdef LOOK_LATE
       release();
       atomic { word = word | MARK; seen = word };
#else
       atomic { word = word | MARK; seen = word };
       MAY_DIE;
       release();
#endif
       MAY_DIE;
       if
       :: me != VICTIM -> park()
       :: me == VICTIM -> /* it may be killed asleep, before or after it is woken */
          atomic {
              if
              :: word == seen && epoch == watch -> asleep[me] = true
              :: else
              fi
          };
          if
          :: !asleep[me]
          :: goto dies
          fi
       fi;
       MAY_DIE;
       acquire()
    od;
    atomic { tokens--; taken++ };
    MAY_DIE;
    release();
dies:
    atomic {
        asleep[me] = false;
        if
        :: owner == me -> owner = 0 /* robust */
        :: else
        fi;
        gone[me] = true
    }
}

proctype notifier()
{
    byte me = NOTIFIER, given, now;
    bool woken;

    do
    :: given < GIVEN ->
       acquire();
       tokens++;
       given++;
       MAY_DIE;
       if
       :: word & MARK ->
          atomic { word = word + NOTIFICATION; now = word };
          MAY_DIE;
          atomic {
              woken = true;
              if
              :: asleep[1] -> asleep[1] = false
              :: asleep[2] -> asleep[2] = false
              :: !asleep[1] && !asleep[2] -> woken = false
              fi
          };
          MAY_DIE;
          atomic {
              if
#ifdef ALWAYS_CLEAR
              :: word == now -> word = word & ~MARK
#else
              :: !woken && word == now -> word = word & ~MARK
#endif
              :: else
              fi
          }
       :: else
       fi;
       MAY_DIE;
       release()
    :: else -> break
    od;
dies:
    atomic {
        if
        :: owner == me -> owner = 0
        :: else
        fi;
        gone[me] = true
    }
}

/* Buries; then gives what is missing. */
proctype supervisor()
{
    byte me = 4;

end_nobody_dies:
    VICTIM && gone[VICTIM];
#ifndef NO_EPOCH
    epoch++;
    atomic { asleep[1] = false; asleep[2] = false };
#endif
    acquire();
    if
    :: VICTIM == NOTIFIER || tokens == 0 ->
       tokens = 2 - taken;
       if
       :: word & MARK ->
          word = word + NOTIFICATION;
          atomic { asleep[1] = false; asleep[2] = false }
       :: else
       fi
    :: else
    fi;
    release()
}

init {
    atomic {
        run waiter(1);
        run waiter(2);
        run notifier();
        run supervisor()
    }
}
