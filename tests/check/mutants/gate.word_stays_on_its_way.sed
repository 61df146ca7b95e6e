# queue-process/
/^void modus_gate_exit/,/^}/s/atomic_fetch_and(&gate->state, ~ON_ITS_WAY)/(void)0/
s/next = (state | SLEEPERS) & ~ON_ITS_WAY;/next = state | SLEEPERS;/
