/* SPDX-License-Identifier: MIT */
/*
 * The ring between processes (concurrency/ring_process.c): claims signed in the slots, tail and
 * head that only follow, and one participant (VICTIM: 1 a producer, 3 a consumer) that may be
 * killed at any step and is then scrubbed.
 *
 * Two producers put two items each (1 to 4) that a consumer gets, or, where a consumer is the victim,
 * one producer puts four for two consumers. A call that finds nothing to do waits until
 * what it looked at has changed.
 *
 * Checked, when nothing moves any more: the survivors have finished; each of their items has come
 * once, but for one that a dead consumer had in its hands; an item of the dead producer at most
 * once; and every slot is empty for the next round: the whole capacity is there.
 *
 * run: -DVICTIM=0
 * run: -DVICTIM=1
 * run: -DVICTIM=3
 * broken: -DVICTIM=1 -DNO_SCRUB
 * broken: -DVICTIM=3 -DNO_SCRUB
 * broken: -DVICTIM=1 -DNO_HELP
 * broken: -DVICTIM=1 -DCLAIM_BY_TAIL
 */
#define CAPACITY 2
#define ITEMS    4

#define EMPTY   0
#define WRITING 1
#define FULL    2
#define READING 3
#define TOMB    4

#define S(at) slot[(at) % CAPACITY]

typedef slot_t {
    byte kind, at, owner, item
};

slot_t slot[CAPACITY];
byte tail, head;
byte got[ITEMS + 1], put[ITEMS + 1];
bool gone[5], scrubbed;
byte lost;

#define MAY_DIE                                                                                    \
    if                                                                                             \
    :: me == VICTIM -> goto dies                                                                   \
    :: true                                                                                        \
    fi

inline move_past(end_, where)
{
    atomic {
        if
        :: end_ == where -> end_++
        :: else
        fi
    }
}

inline look(where)
{
    atomic { kind = S(where).kind; at = S(where).at; owner = S(where).owner }
}

#define UNCHANGED(p) (S(p).kind == kind && S(p).at == at && S(p).owner == owner)

/* The exchange: from what was looked at. */
inline change(where, new_kind, new_at, new_owner)
{
    atomic {
        if
        :: UNCHANGED(where) ->
           S(where).kind = new_kind;
           S(where).at = new_at;
           S(where).owner = new_owner;
           done = true
        :: else -> done = false
        fi
    }
}

inline skip_tomb(where)
{
    atomic {
        if
        :: S(where).kind == TOMB && S(where).at == where ->
           S(where).kind = EMPTY;
           S(where).at = where + CAPACITY
        :: else
        fi
    };
    move_past(head, where)
}

proctype producer(byte me; byte item; byte last)
{
    byte p, kind, at, owner;
    bool done;

    do
    :: item <= last ->
       p = tail;
       look(p);
       if
       :: tail != p
       :: tail == p && at == p && kind == EMPTY ->
          MAY_DIE;
#ifdef CLAIM_BY_TAIL
          /* The textbook's claim: between it and the slot there is room for a death. */
          atomic {
              if
              :: tail == p -> tail++; done = true
              :: else -> done = false
              fi
          };
          if
          :: done -> MAY_DIE; change(p, WRITING, p, me)
          :: else
          fi;
#else
          change(p, WRITING, p, me);
#endif
          if
          :: done ->
             MAY_DIE;
             move_past(tail, p);
             MAY_DIE;
             S(p).item = item;
             MAY_DIE;
             atomic {
                 assert(S(p).kind == WRITING && S(p).at == p && S(p).owner == me);
                 S(p).kind = FULL;
                 S(p).owner = 0
             };
             MAY_DIE;
             put[item] = 1;
             item++
          :: else
          fi
       :: tail == p && (at > p || (at == p && kind != EMPTY)) ->
#ifdef NO_HELP
          tail != p
#else
          move_past(tail, p)
#endif
       :: tail == p && at < p && kind == TOMB -> skip_tomb(p - CAPACITY)
       :: tail == p && at < p && kind != TOMB ->
          !UNCHANGED(p) || tail != p
       fi
    :: else -> break
    od;
dies:
    gone[me] = true
}

proctype consumer(byte me)
{
    byte p, kind, at, owner, item;
    bool done;

end_get:
    do
    :: true ->
       p = head;
       look(p);
       if
       :: at > p -> move_past(head, p)
       :: at == p && kind == FULL ->
          MAY_DIE;
          change(p, READING, p, me);
          if
          :: done ->
             MAY_DIE;
             move_past(head, p);
             MAY_DIE;
             item = S(p).item;
             MAY_DIE;
             /* From here on it is got. */
             atomic {
                 assert(S(p).kind == READING && S(p).at == p && S(p).owner == me);
                 S(p).kind = EMPTY;
                 S(p).at = p + CAPACITY;
                 S(p).owner = 0;
                 got[item]++
             };
             item = 0
          :: else
          fi
       :: at == p && kind == TOMB -> skip_tomb(p)
       :: at == p && kind == READING -> move_past(head, p)
       :: at < p || (at == p && (kind == EMPTY || kind == WRITING)) ->
end_wait:
          if
          :: !UNCHANGED(p) || head != p
          :: me == VICTIM -> goto dies
          fi
       fi
    od;
dies:
    gone[me] = true
}

proctype supervisor()
{
    byte i;

#if VICTIM
end_alive:
    gone[VICTIM];
#ifndef NO_SCRUB
    do
    :: i < CAPACITY ->
       if
       :: slot[i].owner == VICTIM && slot[i].kind == WRITING ->
#ifndef NO_HELP
          move_past(tail, slot[i].at);
#endif
          atomic { slot[i].kind = TOMB; slot[i].owner = 0 }
       :: slot[i].owner == VICTIM && slot[i].kind == READING ->
          move_past(head, slot[i].at);
          atomic {
              slot[i].kind = EMPTY;
              slot[i].at = slot[i].at + CAPACITY;
              slot[i].owner = 0;
              lost++
          }
       :: else
       fi;
       i++
    :: else -> break
    od
#endif
#endif
}

/* Nothing moves any more. */
proctype judge()
{
    byte i = 1, missing;

    timeout;
    assert(gone[2] && (VICTIM == 3 || gone[1]));
    do
    :: i <= ITEMS ->
       assert(got[i] <= 1);
       missing = missing + (put[i] && !got[i]);
       i++
    :: else -> break
    od;
    assert(missing <= lost && lost <= 1 && (VICTIM == 3 || lost == 0));
    i = 0;
    do
    :: i < CAPACITY ->
       assert(slot[i].kind == EMPTY || slot[i].kind == TOMB);
       i++
    :: else -> break
    od;
    assert(head == tail)
}

init {
    atomic {
        S(1).at = 1;
#if VICTIM == 3
        run producer(2, 1, 4);
        run consumer(3);
#else
        run producer(1, 1, 2);
        run producer(2, 3, 4);
#endif
        run consumer(4);
        run supervisor();
        run judge()
    }
}
