# Where things go; read by install.sh and uninstall.sh. From the environment:
#   PREFIX   the daemon's own virtual environment, /opt/telemetryd
#   LIBDIR   for units, user and tmpfiles rule, /usr/local/lib; a package says /usr/lib
#   DESTDIR  a tree to work on instead of this machine, for a package or an image: nothing on this
#            machine is started, stopped or created then

umask 022
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/opt/telemetryd}
LIBDIR=${LIBDIR:-/usr/local/lib}

die() {
    echo "$0: $*" >&2
    exit 1
}

# One of these is deleted as a whole, and both are written into files: nothing odd in them.
for path in "$PREFIX" "$LIBDIR"; do
    case $path in
    *[!A-Za-z0-9/._+-]* | *//* | */../* | */.. | */./* | */. | */ | /)
        die "PREFIX and LIBDIR are plain absolute paths, not '$path'" ;;
    /*) ;;
    *) die "PREFIX and LIBDIR are plain absolute paths, not '$path'" ;;
    esac
done
case $DESTDIR in
"" | /*) DESTDIR=${DESTDIR%/} ;;
*) die "DESTDIR is an absolute path, not '$DESTDIR'" ;;
esac
if [ -z "$DESTDIR" ] && [ "$(id -u)" -ne 0 ]; then
    die "only root can do this; or set DESTDIR to work on a tree of your own"
fi

venv=$DESTDIR$PREFIX
units=$DESTDIR$LIBDIR/systemd/system
unit=$units/telemetryd.service
ipmi_service=$units/telemetryd-ipmi.service
ipmi_timer=$units/telemetryd-ipmi.timer
ipmi_script=$venv/libexec/read-ipmi-power.sh
sysusers=$DESTDIR$LIBDIR/sysusers.d/telemetryd.conf
tmpfiles=$DESTDIR$LIBDIR/tmpfiles.d/telemetryd.conf
config=$DESTDIR/etc/telemetryd/telemetryd.toml

# Whether there is a service manager to talk to: not in a chroot or a container without one.
systemd_runs() {
    [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]
}

# install.sh leaves this file in the folder that it makes; only a folder with it is ever deleted.
mark=made-by-telemetryd-install

venv_is_ours() {
    [ -f "$venv/$mark" ]
}
