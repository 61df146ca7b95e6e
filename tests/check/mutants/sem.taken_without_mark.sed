# sem/
s/(word - PERMIT) | mark/(word - PERMIT) | (mark \& 0)/
