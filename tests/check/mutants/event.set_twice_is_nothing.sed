# --tso event/clear
s/^    \/\* Also when the flag is set already.*$/    if (word \& FLAG)\n        return;\n&/
