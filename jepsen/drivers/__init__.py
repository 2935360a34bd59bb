"""Where the nodes of a run live: hosts, the network between them, their disks and clocks."""
