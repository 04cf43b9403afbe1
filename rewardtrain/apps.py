from django.apps import AppConfig


class RewardtrainConfig(AppConfig):
    name = "rewardtrain"
    verbose_name = "Learning"

    def ready(self) -> None:
        from rewardtrain import invariants, round_settings  # noqa: F401 - they register their checks
