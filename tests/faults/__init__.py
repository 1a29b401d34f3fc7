"""What a benchmark survives: processes killed, disks full, files damaged, servers gone."""
