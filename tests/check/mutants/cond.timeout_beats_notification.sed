# cond/timeout
s/if (!visit.listed)/if (!visit.listed \&\& rc == 0)/
s/^    unlist(cond, &visit);/    if (visit.listed)\n        unlist(cond, \&visit);/
