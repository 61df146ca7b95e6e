# lock/
s/uint32_t word = atomic_exchange(&lock->word, 0);/uint32_t word = atomic_load(\&lock->word);\n    if (word \& SLEEPERS)\n        modus_unpark(MODUS_THREAD, \&lock->word, 1);\n    word = atomic_exchange(\&lock->word, 0) \& ~SLEEPERS;/
