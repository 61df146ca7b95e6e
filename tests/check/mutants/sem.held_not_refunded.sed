# sem/holder
s/if (atomic_exchange(&account->held\[id - 1\], 0) > 0)/if (atomic_exchange(\&account->held[id - 1], 0) > 1)/
