"""What a run will take: bytes and seconds, and the settings that fit."""
