"""What a person is told stays one line that can be read, whatever the text that it quotes."""

from crossclass.core.errors import LONGEST, UserError


def test_a_sentence_that_quotes_a_very_long_text_keeps_its_beginning_and_its_end():
    said = str(UserError(f"model.kind={'x' * 10**6}: is no network; give model.kind=preactresnet"))
    assert len(said) <= LONGEST
    assert said.startswith("model.kind=x")
    assert said.endswith("give model.kind=preactresnet")


def test_a_command_line_with_a_very_long_setting_is_refused_in_a_short_sentence(call):
    code, _, err = call("sweep", "cifar10-mini", "validation.attack=" + "null.attack=" * 2000, "plan=true")
    assert code == 2
    assert len(err) <= LONGEST + 100
