# lock/
/atomic_store(&lock->word, heir | SLEEPERS);/{
h
d
}
/atomic_store(&lock->heir, 0);/{
G
}
