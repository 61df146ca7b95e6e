# event/doorbell
/^void modus_doorbell_hear/,/^}/{
/atomic_store(&bell->state, QUIET);/d
s/^    if (eventfd_read/    atomic_store(\&bell->state, QUIET);\n&/
}
