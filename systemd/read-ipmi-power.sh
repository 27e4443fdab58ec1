#!/bin/sh
# Writes one reading of the system's power into $RUNTIME_DIRECTORY/power, in the words of ipmitool
# or, where that is missing, of FreeIPMI's ipmi-dcmi: telemetryd reads it. Run by
# telemetryd-ipmi.service. It asks the BMC to read, and for nothing else.
set -eu
export LC_ALL=C
power=${RUNTIME_DIRECTORY:?}/power

# To the driver alone: without -D, ipmi-dcmi would also try the hardware itself.
if command -v ipmitool >/dev/null; then
    set -- ipmitool -I open dcmi power reading
elif command -v ipmi-dcmi >/dev/null; then
    set -- ipmi-dcmi -D OPENIPMI --get-system-power-statistics
else
    set -- sh -c 'echo "neither ipmitool nor ipmi-dcmi is installed"; exit 1'
fi
# A failure is written down as well, and so is no failure of the unit, which the journal would
# have twice a minute: the daemon counts it and says what to do.
status=0
timeout --kill-after=2 15 "$@" >"$power.new" 2>&1 </dev/null || status=$?
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    echo "no answer from the BMC within 15 s" >>"$power.new"
fi
mv "$power.new" "$power"
