#!/bin/bash
# Second part of the guest's start, in the host's file system: runs the job that the kernel's command line names, and
# hands its exit code out.
value() { tr ' ' '\n' < /proc/cmdline | sed -n "s/^$1=//p"; }
export HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin
MARTLET=$(value lab.martlet)
export MARTLET
echo "lab: ready after $(cut -d' ' -f1 /proc/uptime) s, kernel $(uname -r)"
/bin/bash "$(value lab.job)"
code=$?
echo "lab: job ended with $code after $(cut -d' ' -f1 /proc/uptime) s"
sync
# QEMU's isa-debug-exit makes the status (code << 1) | 1 of what is written to its port.
printf "\\x$(printf %02x "$code")" | dd of=/dev/port bs=1 seek=244 count=1 conv=notrunc 2> /dev/null
echo o > /proc/sysrq-trigger
sleep 5
