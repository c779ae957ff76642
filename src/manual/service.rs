//! alexandria-ingestd(8) and alexandriactl(1): what an argument parser does not know. Every key is explained in
//! alexandria-ingestd.toml(5) alone, every journal field in alexandria-ingestd-journal(7).

use clap::Command;

use super::Page;
use super::program::{self, Section};

const SERVICE: [Section; 8] = [
    (
        "THE SERVICE",
        "\
The Debian package installs `alexandria-ingestd.service`, and starts nothing: edit `/etc/alexandria-ingestd/config.toml`
(at least `path` under `[library]`), then

  alexandria-ingestd check-config
  systemctl enable --now alexandria-ingestd

The start is over when the model is loaded and warm; until then `systemctl status` says what it is at. The first start
fetches the model from the Hugging Face hub (bge-m3: 2 GB) unless `model_path` under `[embedding]` names a folder; where
the hub cannot be reached it says so and tries again, from 15 seconds up to 10 minutes apart.

A library that is not mounted is waited for. With another `path` than /mnt/calibre, tell systemd which mount is wanted
(systemctl edit alexandria-ingestd; the name is what `systemd-escape -p --suffix=mount PATH` prints):

  [Unit]
  Wants=srv-books.mount
  After=srv-books.mount

A library that only a group may read:

  [Service]
  SupplementaryGroups=calibre

`systemctl stop alexandria-ingestd` ends the service and its control socket within 20 seconds, wherever it is; books in
work go on at the next start. `systemctl start` begins both again. Restarts after a crash are 20 seconds apart; with systemd 254 or
newer they can grow:

  [Service]
  RestartSteps=6
  RestartMaxDelaySec=10min

Members of the group `alexandria-ingestd` may use alexandriactl(1): `adduser NAME alexandria-ingestd`. The socket is
systemd's; another group is set by `systemctl edit alexandria-ingestd.socket`, not by `group` under `[control]`:

  [Socket]
  SocketGroup=librarians",
    ),
    (
        "SIGNALS",
        "\
= SIGTERM
= SIGINT
Ends in order: the batch in hand ends, books in work go back to the queue, the store and the state are made durable. What
hangs is left behind, so that it never takes 20 seconds.

= SIGHUP
Looks at the library, and reads the configuration again (`systemctl reload alexandria-ingestd`). The log says which of the
changed keys hold at once, and which wait for a restart.",
    ),
    (
        "EXIT STATUS",
        "\
= 0
Done, or ended by a signal.

= 1
Failed; a restart may help. systemd starts the service again.

= 2
The configuration or the command line is refused, the model's folder is not one, or the collection is another model's. A
restart would not help, and systemd leaves it.

= 3
The state file is corrupt, or a newer version wrote it. systemd leaves it. `alexandria-ingestd rebuild` makes a corrupt
one again; a newer one wants the newer version back.",
    ),
    (
        "FILES",
        "\
= /etc/alexandria-ingestd/config.toml
The configuration, see alexandria-ingestd.toml(5). Root and the service's group may read it.

= /etc/alexandria-ingestd/environment
Variables for the service, NAME=value a line; read where it exists.

= /etc/credstore/alexandria-ingestd.*
Secrets, see CREDENTIALS.

= /var/lib/alexandria-ingestd
The state (`state.db`), the embedded store, fetched models. Removing the package keeps it, purging deletes it.

= /var/cache/alexandria-ingestd
What the GPU's driver compiled. It may be deleted at any time.

= /run/alexandria-ingestd/control.sock
Where alexandriactl(1) asks.

= /usr/share/doc/alexandria-ingestd/examples
Mount units for a library on a Windows or Samba share; a dashboard for Grafana.",
    ),
    (
        "ENVIRONMENT",
        "\
Every key of the configuration can be set by a variable, see alexandria-ingestd.toml(5). Beside them:

= HF_ENDPOINT
Another Hugging Face hub, such as a mirror in this network.

= STATE_DIRECTORY
= RUNTIME_DIRECTORY
= CREDENTIALS_DIRECTORY
= NOTIFY_SOCKET
= LISTEN_FDS
= WATCHDOG_USEC
What systemd gives a service.",
    ),
    (
        "CREDENTIALS",
        "\
Secrets come as systemd credentials, each a file that only root can read; the service sees a copy. A secret whose file is
absent is not there, which is no error. `systemctl restart alexandria-ingestd` after a change.

= http-token
From `/etc/credstore/alexandria-ingestd.http-token`: what requests to the HTTP port must carry (Authorization: Bearer).

= qdrant-api-key
From `/etc/credstore/alexandria-ingestd.qdrant-api-key`: the Qdrant server's API key.

To make a token:

  install -d -m 700 /etc/credstore
  (umask 077; openssl rand -hex 32 > /etc/credstore/alexandria-ingestd.http-token)

Encrypted ones (systemd-creds(1)) are named by `LoadCredentialEncrypted=` in a drop-in.",
    ),
    (
        "GPU",
        "\
An NVIDIA card of compute capability 8.0 or newer with driver 580 or newer is used where cuBLAS 13 is found; else the CPU
computes. `alexandria-ingestd device` says what it sees. The service cannot make the driver's device files: have
nvidia-persistenced running, or `nvidia-modprobe -u -c 0` at boot.",
    ),
    (
        "SEE ALSO",
        "alexandriactl(1), alexandria-ingestd.toml(5), alexandria-ingestd-journal(7), systemd.mount(5), mount.cifs(8)",
    ),
];

const CONTROL: [Section; 4] = [
    (
        "EXIT STATUS",
        "\
= 0
Done.

= 1
The service refused, failed or does not answer; what to do stands in the message. `verify`: library, state and store
disagree.

= 2
Wrong usage.",
    ),
    (
        "ENVIRONMENT",
        "\
= ALEXANDRIA_CONTROL__SOCKET
The control socket, where `--socket` names none.

= ALEXANDRIA_STATE_DIR
The state directory of a service that is run by hand; its socket is control.sock in it.",
    ),
    (
        "FILES",
        "\
= /run/alexandria-ingestd/control.sock
The system service's socket. Members of the group `alexandria-ingestd` may use it: `adduser NAME alexandria-ingestd`, then
log in again.

= ~/.local/state/alexandria-ingestd/control.sock
The socket of a service that the user runs, taken where there is no system service.",
    ),
    ("SEE ALSO", "alexandria-ingestd(8), alexandria-ingestd.toml(5), alexandria-ingestd-journal(7)"),
];

/// alexandria-ingestd(8).
pub fn service_page(command: Command) -> Page {
    Page { name: "alexandria-ingestd", section: 8, text: program::page(command, 8, &SERVICE) }
}

/// alexandriactl(1).
pub fn control_page(command: Command) -> Page {
    Page { name: "alexandriactl", section: 1, text: program::page(command, 1, &CONTROL) }
}
