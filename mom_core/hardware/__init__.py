"""What this machine has, what it holds now, and how fast it is: host, GPU, meter, rates."""
