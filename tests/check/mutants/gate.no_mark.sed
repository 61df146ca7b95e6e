# queue/
/^static void list(/,/^}/s/atomic_fetch_or(&gate->state, SLEEPERS)/(void)0/
