"""What of a network is made on the host: links, the firewall's rules, sockets of published ports."""
