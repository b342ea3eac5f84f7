"""Who hosts the workers: Ray actors on one machine or many, or threads of this process."""
