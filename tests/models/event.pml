/* SPDX-License-Identifier: MIT */
/*
 * The event (concurrency/event.c): two waiters, a setter that pulses (sets and clears at once) when
 * both have come, and may be killed after the set (VICTIM); its burial moves the death epoch.
 *
 * Checked: both waiters return, though the flag is clear again before they look.
 *
 * run: -DVICTIM=0
 * run: -DVICTIM=1
 * broken: -DVICTIM=0 -DNO_COUNT
 * broken: -DVICTIM=0 -DNO_MARK
 * broken: -DVICTIM=1 -DNO_EPOCH
 */
#define FLAG    1
#define WAITERS 2
#define SET     4

#define MAY_DIE                                                                                    \
    if                                                                                             \
    :: VICTIM -> goto dies                                                                         \
    :: true                                                                                        \
    fi

byte word, epoch, came;
bool asleep[2], killed;

inline wake_all()
{
    atomic { asleep[0] = false; asleep[1] = false }
}

inline set()
{
    seen = word;
    do
    :: atomic {
           seen == word ->
           if
           :: word & FLAG
#ifdef NO_COUNT
           :: else -> word = (word & ~WAITERS) | FLAG
#else
           :: else -> word = ((word + SET) & ~WAITERS) | FLAG
#endif
           fi
       };
       break
    :: atomic { seen != word -> seen = word }
    od
}

inline clear()
{
    word = word & ~FLAG
}

#ifdef NO_MARK
#define UNMARKED(w) ((w) & ~WAITERS)
#else
#define UNMARKED(w) (w)
#endif
#define PASSED(w) (((w) & FLAG) || (w) / SET != first / SET)

proctype waiter(byte me)
{
    byte first, seen, watch;

    atomic { first = word; came++ };
    do
    :: true ->
       watch = epoch;
       seen = word;
       do
       :: !PASSED(seen) && !(seen & WAITERS) ->
          atomic {
              if
              :: seen == word ->
#ifndef NO_MARK
                 word = word | WAITERS;
#endif
                 seen = seen | WAITERS
              :: else -> seen = word
              fi
          }
       :: PASSED(seen) || (seen & WAITERS) -> break
       od;
       if
       :: PASSED(seen) -> break
       :: else
       fi;
       atomic {
           if
           :: word == UNMARKED(seen) && epoch == watch -> asleep[me] = true
           :: else
           fi
       };
       !asleep[me]
    od
}

proctype setter()
{
    byte seen;

    came == 2;
    set();
    MAY_DIE;
    if
    :: seen & WAITERS -> wake_all()
    :: else
    fi;
    MAY_DIE;
    clear();
    goto ends;
dies:
    killed = true;
ends:
    skip
}

proctype supervisor()
{
end_nobody_dies:
    killed;
#ifndef NO_EPOCH
    epoch++;
    wake_all()
#endif
}

init {
    atomic {
        run waiter(0);
        run waiter(1);
        run setter();
        run supervisor()
    }
}
