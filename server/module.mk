# What the lab's page brings with it is part of an object, and the compiler does not say so.
$(BUILD)/server/lab/report.o: server/lab/report.css
