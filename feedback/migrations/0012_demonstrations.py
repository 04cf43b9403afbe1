import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0011_rankings_keep_their_source"),
    ]

    operations = [
        migrations.CreateModel(
            name="Demonstration",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField(help_text="Position of the turn it answers.")),
                ("content", models.TextField()),
                (
                    "fingerprint",
                    models.CharField(help_text="Of the content, letter case and blanks aside.", max_length=64),
                ),
                (
                    "annotator_key",
                    models.CharField(
                        help_text="u<id> of a person here; the source's own name for an imported one.", max_length=120
                    ),
                ),
                (
                    "source",
                    models.JSONField(blank=True, default=dict, help_text="What an import says of it, kept as it was."),
                ),
                ("revision", models.PositiveIntegerField(default=1)),
                ("withdrawn", models.BooleanField(default=False)),
                (
                    "pasted_share",
                    models.FloatField(
                        blank=True,
                        help_text="0 to 1, of its characters; empty: not measured. A signal, not a verdict.",
                        null=True,
                    ),
                ),
                ("seconds", models.FloatField(blank=True, help_text="Time the page was in view.", null=True)),
                ("late", models.BooleanField(default=False, help_text="Sent after the lease lapsed.")),
                (
                    "counts",
                    models.BooleanField(default=True, help_text="False for a late one whose slot somebody else took."),
                ),
                ("submit_key", models.UUIDField(blank=True, null=True, unique=True)),
                ("body_hash", models.CharField(blank=True, max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
        ),
        migrations.CreateModel(
            name="DemonstrationReview",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "verdict",
                    models.CharField(
                        choices=[("accepted", "Accepted"), ("sent_back", "Sent back"), ("edited", "Edited")],
                        max_length=9,
                    ),
                ),
                (
                    "reason",
                    models.TextField(blank=True, help_text="Why it was sent back, in the reviewer's own words."),
                ),
                ("annotator_key", models.CharField(help_text="u<id> of the person.", max_length=120)),
                ("revision", models.PositiveIntegerField(default=1)),
                ("withdrawn", models.BooleanField(default=False)),
                ("seconds", models.FloatField(blank=True, help_text="Time the page was in view.", null=True)),
                ("late", models.BooleanField(default=False, help_text="Sent after the lease lapsed.")),
                (
                    "counts",
                    models.BooleanField(default=True, help_text="False for a late one whose slot somebody else took."),
                ),
                ("submit_key", models.UUIDField(blank=True, null=True, unique=True)),
                ("body_hash", models.CharField(blank=True, max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="workitem",
            name="a_work_item_is_about_one_thing",
        ),
        migrations.AddField(
            model_name="project",
            name="demonstrations_open",
            field=models.BooleanField(
                default=False, help_text="Annotators write the replies they would want, and review each other's."
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="demonstrations_per_prompt",
            field=models.PositiveSmallIntegerField(
                default=1,
                help_text="How many people write a reply to the same prompt.",
                validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(20)],
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="ready_demonstrations",
            field=models.PositiveSmallIntegerField(
                default=6,
                help_text="Prompts that wait for a written reply, kept so by themselves. 0: only what is asked for.",
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(("demonstrations_per_prompt__gte", 1)), name="a_prompt_wants_a_demonstration"
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="annotator",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstrations",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="dialogue",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="demonstrations", to="feedback.dialogue"
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="edited_from",
            field=models.ForeignKey(
                blank=True,
                help_text="The model's reply it was made from; empty: written from nothing.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstrations",
                to="feedback.candidate",
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="slot",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstrations",
                to="feedback.slot",
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="source_import",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstrations",
                to="feedback.import",
            ),
        ),
        migrations.AddField(
            model_name="demonstration",
            name="supersedes",
            field=models.OneToOneField(
                blank=True,
                help_text="What it takes the place of: the writer's own earlier one, or the one a reviewer edited.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="superseded_by",
                to="feedback.demonstration",
            ),
        ),
        migrations.AddField(
            model_name="turn",
            name="demonstration",
            field=models.ForeignKey(
                blank=True,
                help_text="The demonstrated reply this turn repeats.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="continued_as",
                to="feedback.demonstration",
            ),
        ),
        migrations.AddField(
            model_name="workitem",
            name="demonstration",
            field=models.ForeignKey(
                blank=True,
                help_text="What is reviewed, or written again by who wrote it.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="work_items",
                to="feedback.demonstration",
            ),
        ),
        migrations.AddConstraint(
            model_name="workitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("candidate__isnull", True),
                        ("comparison__isnull", True),
                        ("demonstration__isnull", True),
                        ("dialogue__isnull", False),
                        ("prompt__isnull", True),
                    ),
                    models.Q(
                        ("candidate__isnull", True),
                        ("comparison__isnull", False),
                        ("demonstration__isnull", True),
                        ("dialogue__isnull", True),
                        ("prompt__isnull", True),
                    ),
                    models.Q(
                        ("candidate__isnull", False),
                        ("comparison__isnull", True),
                        ("demonstration__isnull", True),
                        ("dialogue__isnull", True),
                        ("prompt__isnull", True),
                    ),
                    models.Q(
                        ("candidate__isnull", True),
                        ("comparison__isnull", True),
                        ("demonstration__isnull", True),
                        ("dialogue__isnull", True),
                        ("prompt__isnull", False),
                    ),
                    models.Q(
                        ("candidate__isnull", True),
                        ("comparison__isnull", True),
                        ("demonstration__isnull", False),
                        ("dialogue__isnull", True),
                        ("prompt__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="a_work_item_is_about_one_thing",
            ),
        ),
        migrations.AddConstraint(
            model_name="workitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("demonstration__isnull", False), ("kind", "review"), ("wanted", 1)),
                    models.Q(
                        models.Q(("kind", "review"), _negated=True),
                        models.Q(
                            ("demonstration__isnull", True),
                            models.Q(("kind", "demonstrate"), ("wanted", 1)),
                            _connector="OR",
                        ),
                    ),
                    _connector="OR",
                ),
                name="a_demonstration_is_reviewed_or_written_again_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="workitem",
            constraint=models.UniqueConstraint(
                condition=models.Q(("demonstration__isnull", False)),
                fields=("demonstration", "kind"),
                name="one_work_item_per_demonstration_and_kind",
            ),
        ),
        migrations.AddField(
            model_name="demonstrationreview",
            name="annotator",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstration_reviews",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="demonstrationreview",
            name="demonstration",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="reviews", to="feedback.demonstration"
            ),
        ),
        migrations.AddField(
            model_name="demonstrationreview",
            name="edit",
            field=models.OneToOneField(
                blank=True,
                help_text="What the reviewer made of it.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="made_by_review",
                to="feedback.demonstration",
            ),
        ),
        migrations.AddField(
            model_name="demonstrationreview",
            name="slot",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="demonstration_reviews", to="feedback.slot"
            ),
        ),
        migrations.AddIndex(
            model_name="demonstration",
            index=models.Index(fields=["fingerprint"], name="demonstration_by_text"),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.UniqueConstraint(
                fields=("dialogue", "position", "annotator_key", "revision"), name="one_demonstration_per_revision"
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("annotator__isnull", False), ("slot__isnull", False), ("source_import__isnull", True)),
                    models.Q(("annotator__isnull", True), ("slot__isnull", True), ("source_import__isnull", False)),
                    _connector="OR",
                ),
                name="a_demonstration_comes_from_a_slot_or_an_import",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.CheckConstraint(
                condition=models.Q(("content", ""), _negated=True), name="a_demonstration_says_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.CheckConstraint(
                condition=models.Q(("revision__gte", 1)), name="demonstration_revisions_start_at_one"
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.CheckConstraint(
                condition=models.Q(("revision", 1), ("supersedes__isnull", False), ("counts", False), _connector="OR"),
                name="a_later_demonstration_supersedes",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("pasted_share__isnull", True),
                    models.Q(("pasted_share__gte", 0), ("pasted_share__lte", 1)),
                    _connector="OR",
                ),
                name="pasted_share_is_nought_to_one",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.CheckConstraint(
                condition=models.Q(("seconds__isnull", True), ("seconds__gte", 0), _connector="OR"),
                name="demonstration_seconds_are_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstration",
            constraint=models.CheckConstraint(
                condition=models.Q(("late", True), ("counts", True), _connector="OR"),
                name="only_late_demonstrations_may_not_count",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.UniqueConstraint(
                fields=("demonstration", "annotator_key", "revision"), name="one_review_per_revision"
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.CheckConstraint(
                condition=models.Q(("verdict__in", ["accepted", "sent_back", "edited"])), name="review_verdict_is_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("verdict", "sent_back"), _negated=True),
                    models.Q(("reason", ""), _negated=True),
                    _connector="OR",
                ),
                name="what_is_sent_back_has_a_reason",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("edit__isnull", False), ("verdict", "edited")),
                    models.Q(models.Q(("verdict", "edited"), _negated=True), ("edit__isnull", True)),
                    _connector="OR",
                ),
                name="an_edit_is_there_where_it_was_edited",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.CheckConstraint(
                condition=models.Q(("revision__gte", 1)), name="review_revisions_start_at_one"
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.CheckConstraint(
                condition=models.Q(("seconds__isnull", True), ("seconds__gte", 0), _connector="OR"),
                name="review_seconds_are_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.CheckConstraint(
                condition=models.Q(("late", True), ("counts", True), _connector="OR"),
                name="only_late_reviews_may_not_count",
            ),
        ),
    ]
