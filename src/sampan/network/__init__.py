"""What of a network is made on the host: links, rules, sockets; and the process that keeps what has to live on (docs/adr/0012)."""
