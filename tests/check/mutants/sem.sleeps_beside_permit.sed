# sem/
s/return atomic_compare_exchange_strong(&sem->word, &word, MARK) || word == MARK;/atomic_fetch_or(\&sem->word, MARK);\n    (void)word;\n    return true;/
s/parked = modus_park(sem->scope, &sem->word, MARK, deadline, &watch);/parked = modus_park(sem->scope, \&sem->word, atomic_load(\&sem->word), deadline, \&watch);/
