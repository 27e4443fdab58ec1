#!/bin/sh
# Installs telemetryd as a systemd service, or upgrades it: run it as often as you like. An
# existing configuration is left alone. layout.sh says what the environment can change; beside
# that, PYTHON names the interpreter, /usr/bin/python3: the service's user must be able to run it.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/systemd/layout.sh"
PYTHON=${PYTHON:-/usr/bin/python3}

"$PYTHON" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$PYTHON is not Python 3.11 or later with venv; apt install python3-venv, or set PYTHON"

# 1. The virtual environment. It stays when it fits, so that plugins installed into it stay too.
identity='import sys; print(sys.base_prefix, sys.version_info[:2])'
if [ -e "$venv" ] && [ -n "$(ls -A "$venv")" ] && ! venv_is_ours; then
    die "$venv is there and was not made by this script; move it away, or choose another PREFIX"
fi
if [ "$("$venv/bin/python" -c "$identity" 2>&1)" != "$("$PYTHON" -c "$identity")" ]; then
    if venv_is_ours; then
        echo "making $venv anew for $PYTHON: plugins of other packages must be installed again"
        rm -rf "$venv"
    fi
    mkdir -p "$venv"
    touch "$venv/$mark"
    "$PYTHON" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
    --root-user-action=ignore "$source"
# Compiled here, since the service cannot write there; with the paths of the machine to be.
"$venv/bin/python" -m compileall -qf -s "$DESTDIR/" -p / "$venv/lib"
if [ -n "$DESTDIR" ]; then
    "$venv/bin/python" - "$venv" "$PREFIX" <<'END'
import pathlib
import sys

venv, final = sys.argv[1:]
for file in [pathlib.Path(venv, "pyvenv.cfg"), *pathlib.Path(venv, "bin").iterdir()]:
    if file.is_file() and not file.is_symlink() and venv.encode() in file.read_bytes():
        file.write_bytes(file.read_bytes().replace(venv.encode(), final.encode()))
END
fi

# 2. Units, user, permission, configuration.
mkdir -p "$units" "${ipmi_script%/*}" "${sysusers%/*}" "${tmpfiles%/*}" "${config%/*}"
for file in "$unit" "$ipmi_service" "$ipmi_timer"; do
    sed "s|/opt/telemetryd|$PREFIX|g" "$source/systemd/${file##*/}" >"$file.new"
    mv "$file.new" "$file"
done
install -m 755 "$source/systemd/read-ipmi-power.sh" "$ipmi_script"
install -m 644 "$source/systemd/telemetryd.sysusers.conf" "$sysusers"
install -m 644 "$source/systemd/telemetryd.tmpfiles.conf" "$tmpfiles"
[ -e "$config" ] || install -m 644 "$source/systemd/telemetryd.toml" "$config"

# 3. This machine.
if [ -n "$DESTDIR" ]; then
    echo "telemetryd is in $DESTDIR; on the machine: systemctl enable --now telemetryd"
    exit 0
fi
systemd-sysusers telemetryd.conf
systemd-tmpfiles --create telemetryd.conf
setpriv --reuid=telemetryd --regid=telemetryd --clear-groups \
    "$venv/bin/python" -c 'import telemetryd' ||
    die "the user telemetryd cannot run $venv/bin/python; set PYTHON to one that all may run"
if systemd_runs; then
    systemctl daemon-reload
    systemctl enable --quiet telemetryd.service
    systemctl restart telemetryd.service ||
        die "telemetryd did not start; see journalctl -u telemetryd"
    # Only where an operator has enabled it.
    systemctl try-restart telemetryd-ipmi.timer
    echo "telemetryd runs; its configuration is $config"
else
    echo "telemetryd is installed; systemd does not run here, so nothing was started"
fi
