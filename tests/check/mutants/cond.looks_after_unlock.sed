# cond/process
/uint32_t seen = /{
h
d
}
/^    MODUS_FAULT(MODUS_FAULT_PARK_MARKED);/{
H
x
}
