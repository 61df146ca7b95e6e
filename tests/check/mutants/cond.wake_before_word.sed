# cond/
/atomic_store(&visit->word, 1);/{
h
d
}
/modus_unpark(MODUS_THREAD, &visit->word, 1);/{
G
}
