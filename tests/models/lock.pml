/* SPDX-License-Identifier: MIT */
/*
 * The lock of thread scope (concurrency/lock.c): three threads, the first of which comes twice;
 * any of them may find itself starved, and so the heir, and the third may give up, at any time.
 *
 * Checked: one inside at a time; nobody sleeps for ever; the lock is free in the end.
 *
 * run:
 * broken: -DWAKE_FIRST
 * broken: -DNO_MARK
 * broken: -DHEIR_FORGOTTEN
 * broken: -DGRANT_LATE
 */
#define N        3
#define SLEEPERS 8
#define HEIR     16
#define TID      7
#define GRANTING 7 /* in heir */

#define ON_WORD 1
#define ON_HEIR 2

byte word, heir, inside, over;
byte asleep[N + 1];

/* The kernel compares and sleeps in one step. */
inline park(where, still)
{
    atomic {
        if
        :: still -> asleep[me] = where
        :: else
        fi
    };
    asleep[me] == 0
}

inline wake_one(where)
{
    atomic {
        if
        :: asleep[1] == where -> asleep[1] = 0
        :: asleep[2] == where -> asleep[2] = 0
        :: asleep[3] == where -> asleep[3] = 0
        :: else
        fi
    }
}

inline wake_all(where)
{
    atomic {
        if :: asleep[1] == where -> asleep[1] = 0 :: else fi;
        if :: asleep[2] == where -> asleep[2] = 0 :: else fi;
        if :: asleep[3] == where -> asleep[3] = 0 :: else fi
    }
}

/* Take the lock if it is free, else leave marks on it; held is then what to sleep on. */
inline take_or_mark(marks)
{
    held = word;
    do
    :: atomic {
           held == word ->
#ifdef NO_MARK
           held = ((held & TID) -> (held | marks) : me);
#else
           held = ((held & TID) -> (held | marks) : (me | SLEEPERS));
#endif
           word = held
       };
       break
    :: atomic { held != word -> held = word }
    od;
    owned = ((held & TID) == me)
}

inline wait_as_heir()
{
    mine = false;
    atomic {
        if
        :: heir == 0 -> heir = me; mine = true
        :: else
        fi
    };
    if
    :: mine ->
       take_or_mark(SLEEPERS | HEIR);
       do
       :: !owned && heir == me ->
          if
          :: park(ON_HEIR, heir == me)
          :: timed -> late = true; break
          fi
       :: owned || heir != me -> break
       od;
       /* resign */
       atomic {
           if
           :: heir == me -> heir = 0; granted = false
           :: else -> granted = true
           fi
       };
       if
       :: granted ->
          do
          :: heir == GRANTING -> park(ON_HEIR, heir == GRANTING)
          :: heir != GRANTING -> break
          od;
          if
          :: (word & TID) == me -> owned = true
          :: else
          fi
       :: else
       fi
    :: else
    fi
}

inline release()
{
    fast = false;
    atomic {
        if
        :: word == me -> word = 0; fast = true
        :: else
        fi
    };
    if
    :: fast
    :: else ->
       /* hand over */
       next = 0;
       atomic {
           if
           :: heir != 0 && heir != GRANTING -> next = heir; heir = GRANTING
           :: else
           fi
       };
       if
       :: next != 0 ->
#ifdef GRANT_LATE
          heir = 0;
          word = next | SLEEPERS;
#else
          word = next | SLEEPERS;
          heir = 0;
#endif
          wake_all(ON_HEIR)
       :: else ->
#ifdef WAKE_FIRST
          wake_one(ON_WORD);
#endif
          atomic { held = word; word = 0 };
#ifndef HEIR_FORGOTTEN
          if
          :: held & HEIR ->
             granted = false;
             atomic {
                 if
                 :: heir != 0 && heir != GRANTING -> heir = 0; granted = true
                 :: else
                 fi
             };
             if
             :: granted -> wake_all(ON_HEIR)
             :: else
             fi
          :: else
          fi;
#endif
#ifndef WAKE_FIRST
          if
          :: held & SLEEPERS -> wake_one(ON_WORD)
          :: else
          fi
#endif
       fi
    fi
}

proctype user(byte me; byte rounds; bool timed)
{
    byte round, held, next;
    bool owned, mine, granted, late, fast;

    do
    :: round < rounds ->
       owned = false;
       late = false;
       atomic {
           if
           :: word == 0 -> word = me; owned = true
           :: else
           fi
       };
       do
       :: !owned && !late ->
          take_or_mark(SLEEPERS);
          if
          :: owned
          :: !owned -> wait_as_heir() /* it has waited for long */
          :: !owned -> park(ON_WORD, word == held)
          :: !owned && timed -> late = true
          fi
       :: owned || late -> break
       od;
       if
       :: owned ->
          inside++;
          assert(inside == 1);
          inside--;
          release()
       :: else
       fi;
       round++
    :: else -> break
    od;
    over++;
    assert(over < N || word == 0)
}

init {
    atomic {
        run user(1, 2, false);
        run user(2, 1, false);
        run user(3, 1, true)
    }
}
