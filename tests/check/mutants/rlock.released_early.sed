# rlock/
s/modus_rlock_depth(lock) > 1/modus_rlock_depth(lock) > 2/
