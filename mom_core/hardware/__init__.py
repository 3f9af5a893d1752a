"""What this machine has, holds and can do: host, GPU, meter, rates."""
