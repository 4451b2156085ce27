"""The real earlyoom, oomd and systemd-oomd in the guest, and our policies fed with what they read (docs/killers.md)."""
