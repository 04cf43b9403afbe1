"""Who works here: people's accounts."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A person's account. What they may do in a project is said by their Membership."""

    class Theme(models.TextChoices):
        AUTO = "auto", "As the device says"
        LIGHT = "light", "Light"
        DARK = "dark", "Dark"

    theme = models.CharField(max_length=5, choices=Theme.choices, default=Theme.AUTO)
    letter_keys = models.BooleanField("one-letter keys", default=True, help_text="Work by single keys on task pages.")

    @property
    def display_name(self) -> str:
        return self.get_full_name() or self.username
