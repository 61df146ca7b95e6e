# queue/
/^static void list_exit/,/^}/s/atomic_fetch_and(&gate->state, ~ON_ITS_WAY)/(void)0/
