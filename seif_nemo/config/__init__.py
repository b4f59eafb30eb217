"""One slotted keyword-only dataclass per configuration group; the field is the only home of a default."""
