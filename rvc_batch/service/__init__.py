"""The daemon as a service of launchd or systemd: what is written, what is told to whom, and whether it worked."""
