# lock/
s/    if (word & HEIR)/    if (0)/
