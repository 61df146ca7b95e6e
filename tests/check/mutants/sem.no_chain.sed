# sem/
s/if (mark && value_of(word) > 1)/if (0)/
