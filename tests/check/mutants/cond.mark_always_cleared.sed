# cond/process
s/if (woken < most)/if (woken <= most)/
