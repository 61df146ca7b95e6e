# event/
s/    if (word & WAITERS)/    if (next \& WAITERS)/
