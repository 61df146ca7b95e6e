# event/pulse
s/((word + SET) & ~(uint32_t)WAITERS)/(word \& ~(uint32_t)WAITERS)/
