# lock/
s/: me | SLEEPERS;/: me;/
