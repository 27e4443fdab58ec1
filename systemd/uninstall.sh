#!/bin/sh
# Removes what install.sh installed; run it with the same PREFIX, LIBDIR and DESTDIR. What is
# yours stays, and is named at the end.
set -eu
. "$(dirname "$0")/layout.sh"

if systemd_runs && [ -e "$unit" ]; then
    systemctl disable --now --quiet telemetryd.service
fi
if systemd_runs && [ -e "$ipmi_timer" ]; then
    systemctl disable --now --quiet telemetryd-ipmi.timer
    systemctl stop --quiet telemetryd-ipmi.service
fi
rm -f "$unit" "$ipmi_service" "$ipmi_timer" "$sysusers" "$tmpfiles"
if systemd_runs; then
    systemctl daemon-reload
fi
if venv_is_ours; then
    rm -rf "$venv"
elif [ -e "$venv" ]; then
    die "$venv was not made by install.sh, so it stays"
fi
if [ -z "$DESTDIR" ]; then
    rm -rf /run/telemetryd-ipmi
    # What the tmpfiles rule had opened is root's again.
    for counter in /sys/class/powercap/*/energy_uj; do
        [ ! -e "$counter" ] || { chown root:root "$counter" && chmod 0400 "$counter"; }
    done
fi
echo "telemetryd is removed. Left: $DESTDIR/etc/telemetryd, $DESTDIR/var/lib/telemetryd" \
    "and the user telemetryd"
